# bccd_student.py with GFLv2's quality head.
_base_ = './bccd_student.py'
model = dict(bbox_head=dict(type='GFLv2VotingHead'))
