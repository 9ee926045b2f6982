"""The sidecar: stdio, the local API and the command line over one plugin host. It never imports an extension."""
