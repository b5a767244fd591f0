"""A ServerApp of one's own around CdcdaPlm."""
