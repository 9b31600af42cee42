"""Worlds: what a task looks like. Physics, rewards and initial states are the same in all of them.

clean             the suite as it is
color_easy/hard   agent, floor and sky in one of 100 random sets of colours
video_easy/hard   a video behind the agent, in place of the sky (easy) or of sky and floor (hard)
distracting_cs    a video on the sky, changing colours, a moving camera: the Distracting Control Suite, at eight intensities
"""
