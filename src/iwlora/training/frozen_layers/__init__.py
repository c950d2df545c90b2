"""The first blocks of a model, where nothing trains in them: computed once for all runs."""
