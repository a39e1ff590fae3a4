"""The guest: the agent inside it (`agent`), its host side (`client`), and the image both live in (`image`)."""
