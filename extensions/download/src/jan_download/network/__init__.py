"""HTTP(S) for downloads: redirects by hand, proxies, certificates, tokens, and errors in our words. It knows nothing of
files, pieces and jobs."""
