"""Manual pages, made from the commands' own help: `page` from click's tree, `roff` and `plain` as text."""
