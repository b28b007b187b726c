"""What every part needs and none owns; imports no part."""
