"""Two groups of small components, and a task that chooses from them."""
