"""The commands as the command line takes them: options, help texts and exit codes. The work is in `commands/`."""
