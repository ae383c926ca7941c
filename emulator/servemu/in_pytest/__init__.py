"""What `servemu.pytest_plugin` needs once a test asks for an emulator."""
