"""Head first: a method trains its head alone in the first steps."""
