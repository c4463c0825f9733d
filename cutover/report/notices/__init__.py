"""Notices: short messages about a train to people and to other systems.

``notice.py`` makes a notice of train events. Each service has one file that makes its payload of a notice. ``delivery.py`` sends notices
beside the train. A notice decides about nothing: a train without notices has the same verdict.
"""
