"""The operator's side: a folder of readable files becomes a signed tree that any web server can hold."""
