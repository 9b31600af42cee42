"""Worlds: the look of a task. All worlds have the same physics, rewards and initial states.

clean             the suite as it is
color_easy/hard   agent, floor and sky in one of 100 random sets of colours
video_easy/hard   a video behind the agent, in place of the sky (easy) or of sky and floor (hard)
distracting_cs    a video on the sky, changing colours, a moving camera: the Distracting Control Suite, at eight intensities
"""
