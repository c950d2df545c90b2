"""Models of others: from folders and from the hub, and no larger than their files."""
