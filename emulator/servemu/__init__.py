"""The local emulator of the Databricks serving-endpoints API."""

__version__ = "0.1.0"
