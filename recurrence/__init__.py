"""The recurrences over a whole sequence, their backward passes derived by hand: what parts 1 and 2 share."""
