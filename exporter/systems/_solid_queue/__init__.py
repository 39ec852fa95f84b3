"""The tables of Solid Queue: what is asked of each, and what its columns mean.

Columns as of schema 0.3 to 1.7 (``queue_schema.rb``, the same from 0.8 to 1.5). No statement may scan solid_queue_jobs
or grow with it: a site has millions of jobs, of which a look asks for those in other tables, by their primary key.
"""
