"""The search of learning rates and options: its settings, its rounds of trials, its choice."""
