"""From a YAML file to one validated configuration: the schema, its defaults, and clear messages for what is wrong."""
