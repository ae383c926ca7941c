"""OpenAPI 3.1 documents: of one endpoint, and of the emulator. Imported when one is asked for."""
