"""Configuration: YAML groups, their typed schema, errors, seeds. Imports nothing of ours."""
