-- When somebody has stopped a rollout of an image; 0 while nobody has.
ALTER TABLE image_rollouts ADD COLUMN stopped_ms BIGINT NOT NULL DEFAULT 0;
