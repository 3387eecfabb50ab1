"""The artifact store, and the mirror that several stores share."""
