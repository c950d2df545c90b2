"""The search for a design: which groups of layers train which parts, decided on paired evidence."""
