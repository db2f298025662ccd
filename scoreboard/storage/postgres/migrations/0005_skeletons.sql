-- A name has a skeleton for each way to read its capital I and its case (domain/skeletons): a row each, all with the same user and name.
-- `skeleton_count`: how many the name has, as far as this row knows. 0: the only one by the first rule, which took i and l for one; its name
-- is kept from others by that rule until housekeeping has put today's skeletons in its place, or it has rested. Nodes of the version before
-- write such rows while they are still there.
ALTER TABLE username_skeletons ADD COLUMN skeleton_count SMALLINT NOT NULL DEFAULT 0;
