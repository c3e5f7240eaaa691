"""One file per group of endpoints; each makes a router for a service; pages.py needs none."""
