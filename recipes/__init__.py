"""The stages as short scripts: read a recipe, build, run, report. The wiring between the layers lives here."""
