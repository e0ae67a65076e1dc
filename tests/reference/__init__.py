"""Pages of docs/reference that are made from the code, by `make reference`; a test compares them."""
