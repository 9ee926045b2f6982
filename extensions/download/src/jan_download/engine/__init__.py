"""Moves the bytes of one job: what is missing, who fetches it, and how many do so at a time.

It decides nothing about when a job runs or what becomes of it (that is the queue's), knows no HTTP (`network`) and
nothing of how a disk is made to keep what it was given (`storage`).
"""
