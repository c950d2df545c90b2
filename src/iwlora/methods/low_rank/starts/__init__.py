"""LoRA that starts from other values than A at random and B = 0."""
