"""Recipes: what they may say (``schema``), how they are read (``loading``) and what is checked (``checks``)."""
