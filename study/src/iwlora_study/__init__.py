"""The study of where importance pays: candidates, one a file, as methods of iwlora."""
