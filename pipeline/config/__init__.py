"""A pipeline's YAML file: its schema, how it is read, and the settings of the machine."""
