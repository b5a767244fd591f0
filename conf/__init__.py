"""Configuration: Hydra YAML groups, their typed schema, errors and seeds. Imports nothing of ours."""
