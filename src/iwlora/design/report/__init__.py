"""What a search of designs decided, as text, tables, figures and a page; no torch is needed."""
