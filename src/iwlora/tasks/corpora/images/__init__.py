"""The named tasks on images: drawn ones, and official files."""
