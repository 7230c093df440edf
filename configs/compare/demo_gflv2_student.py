# The demo's student with GFLv2's quality head.
_base_ = '../demo/student.py'
model = dict(bbox_head=dict(type='GFLv2VotingHead'))
