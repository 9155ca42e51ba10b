"""Reads the recipes of encoders: presets ``demo`` and ``tiny``, YAML files, checkpoints."""

from __future__ import annotations

from text.encoder.recipe import Recipe
from training.recipe_files import RecipeFiles

RECIPES = RecipeFiles(Recipe(), "text.encoder", "training.json", "text fit")
