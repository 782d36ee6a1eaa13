"""The configurations; their import name is diffv2iqa_jax.configs, installed or not."""
