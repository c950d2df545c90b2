"""The images in a report: those of confident errors, and those that runs generate."""
