"""Speed and memory of every part beside what a user would take instead; each module is a command of its own."""
