"""What the operator and the sender say to each other: plain data, no IO behind it."""
