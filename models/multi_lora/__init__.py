"""Many adapters trained and answered with over one shared base."""
