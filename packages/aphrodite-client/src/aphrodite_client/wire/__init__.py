"""What crosses the wire: sampling fields (generated), bodies and answers."""
