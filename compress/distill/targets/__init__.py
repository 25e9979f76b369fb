"""What a teacher says of a training set, one kind of target a file, and where it is stored."""
