"""Source A's figures (Wortsman et al., arXiv 2309.14322) from records: table, claims, drawing.

Every function takes records by the name of their sweep, mostly settings to compare by label, and
returns an `analysis.answer.Answer`. What the records lack makes a claim that cannot tell.
"""
