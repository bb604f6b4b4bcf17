//! Random forest: its flat form, how it predicts, how it is grown.
//!
//! A tree is a run of 8-byte nodes; the two children of a node lie side by side, so a step is one
//! load and an addition. Leaves hold the share of each label among their training rows, and the
//! forest answers with the mean of its trees (so the probabilities need no calibration).
//!
//! Own trainer, because the ready-made one draws features once a tree instead of once a split and
//! scores below a single tree on sensor data. Source: Breiman, "Random Forests", Machine Learning
//! 45, 2001; defaults and the treatment of constant features as in scikit-learn.
//!
//! Each tree has its own stream of the seeded generator and splits are scored in integers, so the
//! forest does not depend on the number of threads that grow it.
//!
//! Not here: rows with missing values (refused before), out-of-bag estimates (`train` keeps rows
//! aside instead).

use std::sync::atomic::{AtomicUsize, Ordering};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::dataset::Dataset;
use super::format::{ModelError, Reader, Writer};
use super::parameters::ForestParameters;

/// Most nodes of one tree. Why: child and leaf numbers fit 16 bits, so a node is 8 bytes. A tree
/// that reaches it stops splitting; depth 15 never does.
const TREE_NODES_MAX: usize = u16::MAX as usize;

/// `feature` of a leaf.
const LEAF: u16 = u16::MAX;

/// Trees walked side by side, so that their memory reads overlap.
const LANES: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq)]
struct TreeNode {
    /// Rows with `x[feature] <= threshold` go to `next`, others to `next + 1`.
    threshold: f32,
    /// Index of the input, or [`LEAF`].
    feature: u16,
    /// Left child within the tree; for a leaf its number within the tree.
    next: u16,
}

/// Where a tree begins.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Root {
    node: u32,
    /// Number of its first leaf.
    leaf: u32,
}

/// A fitted forest.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Forest {
    labels: usize,
    roots: Vec<Root>,
    nodes: Vec<TreeNode>,
    /// `labels` shares for each leaf.
    leaves: Vec<f32>,
}

impl Forest {
    /// Writes the mean share of each label over all trees.
    pub(super) fn predict(&self, row: &[f32], out: &mut [f32]) {
        let mut chunks = self.roots.chunks_exact(LANES);
        for roots in &mut chunks {
            let mut at = [0_usize; LANES];
            let mut walking = true;
            while walking {
                walking = false;
                for (root, at) in roots.iter().zip(&mut at) {
                    let node = self.nodes[root.node as usize + *at];
                    if node.feature != LEAF {
                        *at = step(node, row);
                        walking = true;
                    }
                }
            }
            for (root, at) in roots.iter().zip(at) {
                self.add_leaf(root, at, out);
            }
        }
        for root in chunks.remainder() {
            let mut at = 0;
            loop {
                let node = self.nodes[root.node as usize + at];
                if node.feature == LEAF {
                    break;
                }
                at = step(node, row);
            }
            self.add_leaf(root, at, out);
        }
        let share = 1.0 / self.roots.len() as f32;
        out.iter_mut().for_each(|p| *p *= share);
    }

    #[inline]
    fn add_leaf(&self, root: &Root, at: usize, out: &mut [f32]) {
        let number = self.nodes[root.node as usize + at].next;
        let from = (root.leaf as usize + usize::from(number)) * self.labels;
        for (p, share) in out.iter_mut().zip(&self.leaves[from..from + self.labels]) {
            *p += share;
        }
    }

    /// Arrays, in this order: nodes of each tree, leaves of each tree, thresholds, features,
    /// children, shares.
    pub(super) fn write(&self, w: &mut Writer) {
        let ends = |of: fn(&Root) -> u32, total: usize| -> Vec<u32> {
            let starts = self.roots.iter().map(of).skip(1);
            let ends: Vec<u32> = starts.chain([total as u32]).collect();
            let mut from = 0;
            ends.into_iter().map(|end| end - std::mem::replace(&mut from, end)).collect()
        };
        w.u32s(&ends(|r| r.node, self.nodes.len()));
        w.u32s(&ends(|r| r.leaf, self.leaves.len() / self.labels));
        w.f32s(&self.nodes.iter().map(|n| n.threshold).collect::<Vec<_>>());
        w.u16s(&self.nodes.iter().map(|n| n.feature).collect::<Vec<_>>());
        w.u16s(&self.nodes.iter().map(|n| n.next).collect::<Vec<_>>());
        w.f32s(&self.leaves);
    }

    pub(super) fn read(
        r: &mut Reader<'_>,
        inputs: usize,
        labels: usize,
    ) -> Result<Self, ModelError> {
        let (node_counts, leaf_counts) = (r.u32s()?, r.u32s()?);
        let (thresholds, features, nexts, leaves) = (r.f32s()?, r.u16s()?, r.u16s()?, r.f32s()?);
        if node_counts.is_empty() || node_counts.len() != leaf_counts.len() {
            return Err(ModelError::Invalid("number of trees"));
        }
        if thresholds.len() != features.len() || features.len() != nexts.len() {
            return Err(ModelError::Invalid("number of nodes"));
        }
        let nodes: Vec<TreeNode> = thresholds
            .iter()
            .zip(features.iter().zip(&nexts))
            .map(|(&threshold, (&feature, &next))| TreeNode { threshold, feature, next })
            .collect();
        let mut roots = Vec::with_capacity(node_counts.len());
        let (mut node_at, mut leaf_at) = (0_usize, 0_usize);
        for (&count, &leaf_count) in node_counts.iter().zip(&leaf_counts) {
            let count = count as usize;
            let tree = nodes
                .get(node_at..)
                .and_then(|rest| rest.get(..count))
                .filter(|tree| (1..=TREE_NODES_MAX).contains(&tree.len()))
                .ok_or(ModelError::Invalid("nodes of a tree"))?;
            for (i, node) in tree.iter().enumerate() {
                let next = usize::from(node.next);
                // Children lie behind their parent, so every walk ends.
                let sound = if node.feature == LEAF {
                    next < leaf_count as usize
                } else {
                    usize::from(node.feature) < inputs && next > i && next + 1 < count
                };
                if !sound {
                    return Err(ModelError::Invalid("a node of a tree"));
                }
            }
            roots.push(Root { node: node_at as u32, leaf: leaf_at as u32 });
            node_at += count;
            leaf_at += leaf_count as usize;
        }
        if node_at != nodes.len() {
            return Err(ModelError::Invalid("nodes of no tree"));
        }
        if Some(leaves.len()) != leaf_at.checked_mul(labels) {
            return Err(ModelError::Invalid("number of leaves"));
        }
        if !leaves.iter().all(|p| (0.0..=1.0).contains(p)) {
            return Err(ModelError::Invalid("share of a leaf"));
        }
        let sums = |leaf: &[f32]| (leaf.iter().sum::<f32>() - 1.0).abs() < 1e-3;
        if !leaves.chunks_exact(labels).all(sums) {
            return Err(ModelError::Invalid("sum of a leaf"));
        }
        Ok(Self { labels, roots, nodes, leaves })
    }

    /// Grows a forest on every row of `data`.
    ///
    /// * `threads`: at least 1; has no influence on the result.
    pub(super) fn fit(
        data: &Dataset,
        seed: u64,
        parameters: &ForestParameters,
        threads: usize,
    ) -> Self {
        let columns: Vec<Column> = (0..data.inputs().len()).map(|f| Column::new(data, f)).collect();
        let (next, columns) = (AtomicUsize::new(0), &columns);
        let grow = || {
            let mut grown = Vec::new();
            loop {
                let tree = next.fetch_add(1, Ordering::Relaxed);
                if tree >= parameters.trees {
                    return grown;
                }
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                random.set_stream(tree as u64);
                grown.push((tree, Grower::new(data, columns, parameters, random).grow()));
            }
        };
        let mut trees = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(grow)).collect();
            let mut trees = grow();
            for thread in others {
                match thread.join() {
                    Ok(grown) => trees.extend(grown),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            trees
        });
        trees.sort_by_key(|(number, _)| *number);

        let mut forest = Self {
            labels: data.labels().len(),
            roots: Vec::with_capacity(trees.len()),
            nodes: Vec::new(),
            leaves: Vec::new(),
        };
        for (_, tree) in trees {
            forest.roots.push(Root {
                node: forest.nodes.len() as u32,
                leaf: (forest.leaves.len() / forest.labels) as u32,
            });
            forest.nodes.extend(tree.nodes);
            forest.leaves.extend(tree.leaves);
        }
        forest
    }
}

#[inline]
fn step(node: TreeNode, row: &[f32]) -> usize {
    // Written so that it compiles to an addition, not to a branch that guesses wrong half the time.
    usize::from(node.next) + usize::from(row[usize::from(node.feature)] > node.threshold)
}

/// One input over all rows, by the rank of its value: ranks are small integers, so that a large
/// node can count instead of sort.
struct Column {
    /// Rank of each row's value among the distinct values.
    ranks: Vec<u32>,
    /// The distinct values, ascending.
    values: Vec<f32>,
}

impl Column {
    fn new(data: &Dataset, input: usize) -> Self {
        let mut values: Vec<f32> = (0..data.len()).map(|i| data.row(i)[input]).collect();
        let row_values = values.clone();
        values.sort_unstable_by(f32::total_cmp);
        // Compared as numbers: -0 and 0 are one value.
        values.dedup();
        let ranks = row_values.iter().map(|v| values.partition_point(|u| u < v) as u32).collect();
        Self { ranks, values }
    }

    /// The value halfway between two neighbouring ranks in a node: rows at `low` stay left of it,
    /// rows at `high` do not.
    fn threshold(&self, low: u32, high: u32) -> f32 {
        let (a, b) = (self.values[low as usize], self.values[high as usize]);
        let middle = a / 2.0 + b / 2.0;
        if middle >= a && middle < b { middle } else { a }
    }
}

/// The best split seen so far.
struct Split {
    /// Sum over both sides of (sum of squared label weights) / weight: grows as Gini falls.
    score: f64,
    feature: usize,
    /// Ranks on either side.
    low: u32,
    high: u32,
}

/// Grows one tree, breadth first.
struct Grower<'a> {
    data: &'a Dataset,
    columns: &'a [Column],
    parameters: &'a ForestParameters,
    random: ChaCha8Rng,
    /// How often the bootstrap drew each row.
    weights: Vec<u32>,
    /// Rows drawn at least once; each node owns a range of it.
    rows: Vec<u32>,
    features: Vec<usize>,
    /// Sort buffer: rank in the high half, row in the low half.
    keys: Vec<u64>,
    /// Counting buffer: `labels` weights, then the number of rows, for each rank.
    counts: Vec<u32>,
    tree: Tree,
}

/// A grown tree.
#[derive(Default)]
struct Tree {
    nodes: Vec<TreeNode>,
    leaves: Vec<f32>,
}

/// A node whose split is not decided yet.
struct Pending {
    node: usize,
    from: usize,
    to: usize,
    depth: usize,
}

impl<'a> Grower<'a> {
    fn new(
        data: &'a Dataset,
        columns: &'a [Column],
        parameters: &'a ForestParameters,
        mut random: ChaCha8Rng,
    ) -> Self {
        let n = data.len() as u32;
        let mut weights = vec![0_u32; data.len()];
        for _ in 0..n {
            weights[random.gen_range(0..n) as usize] += 1;
        }
        let rows = (0..n).filter(|&i| weights[i as usize] > 0).collect();
        Self {
            data,
            columns,
            parameters,
            random,
            weights,
            rows,
            features: (0..columns.len()).collect(),
            keys: Vec::new(),
            counts: Vec::new(),
            tree: Tree::default(),
        }
    }

    fn grow(mut self) -> Tree {
        let root = TreeNode { threshold: 0.0, feature: LEAF, next: 0 };
        self.tree.nodes.push(root);
        let mut queue = std::collections::VecDeque::from([Pending {
            node: 0,
            from: 0,
            to: self.rows.len(),
            depth: 0,
        }]);
        while let Some(p) = queue.pop_front() {
            let totals = self.totals(p.from, p.to);
            let split = if p.depth >= self.parameters.depth
                || p.to - p.from < 2 * self.parameters.min_leaf
                || totals.iter().filter(|w| **w > 0).count() < 2
                || self.tree.nodes.len() + 2 > TREE_NODES_MAX
            {
                None
            } else {
                self.best_split(p.from, p.to, &totals)
            };
            let Some(split) = split else {
                self.leaf(p.node, &totals);
                continue;
            };
            let middle = self.partition(p.from, p.to, &split);
            let left = self.tree.nodes.len();
            self.tree.nodes[p.node] = TreeNode {
                threshold: self.columns[split.feature].threshold(split.low, split.high),
                feature: split.feature as u16,
                next: left as u16,
            };
            self.tree.nodes.extend([root, root]);
            for (node, from, to) in [(left, p.from, middle), (left + 1, middle, p.to)] {
                queue.push_back(Pending { node, from, to, depth: p.depth + 1 });
            }
        }
        self.tree
    }

    /// Weight of each label in a range of rows.
    fn totals(&self, from: usize, to: usize) -> Vec<u64> {
        let mut totals = vec![0_u64; self.data.labels().len()];
        for &row in &self.rows[from..to] {
            totals[self.data.label(row as usize)] += u64::from(self.weights[row as usize]);
        }
        totals
    }

    fn leaf(&mut self, node: usize, totals: &[u64]) {
        let number = self.tree.leaves.len() / totals.len();
        self.tree.nodes[node].next = number as u16;
        let sum: u64 = totals.iter().sum();
        self.tree.leaves.extend(totals.iter().map(|&w| (w as f64 / sum as f64) as f32));
    }

    /// Tries randomly drawn features until enough were seen, and at least one that varies.
    fn best_split(&mut self, from: usize, to: usize, totals: &[u64]) -> Option<Split> {
        let wanted = self.parameters.features_of(self.columns.len());
        let mut best = None;
        let mut varying = false;
        for drawn in 0..self.features.len() {
            if drawn >= wanted && varying {
                break;
            }
            let with = self.random.gen_range(drawn as u32..self.features.len() as u32) as usize;
            self.features.swap(drawn, with);
            varying |= self.try_feature(self.features[drawn], from, to, totals, &mut best);
        }
        best
    }

    /// Scores every split of one feature; false if its value is the same in all rows.
    fn try_feature(
        &mut self,
        feature: usize,
        from: usize,
        to: usize,
        totals: &[u64],
        best: &mut Option<Split>,
    ) -> bool {
        let column = &self.columns[feature];
        let mut scan = Scan::new(feature, totals, to - from, self.parameters.min_leaf, best);
        // Counting touches every distinct value, sorting every row log n times.
        if column.values.len() / 4 <= to - from {
            let width = totals.len() + 1;
            self.counts.clear();
            self.counts.resize(column.values.len() * width, 0);
            for &row in &self.rows[from..to] {
                let row = row as usize;
                let at = column.ranks[row] as usize * width;
                self.counts[at + self.data.label(row)] += self.weights[row];
                self.counts[at + totals.len()] += 1;
            }
            for (rank, bin) in self.counts.chunks_exact(width).enumerate() {
                if bin[totals.len()] > 0 {
                    scan.next_value(rank as u32);
                    scan.rows += bin[totals.len()] as usize;
                    for (label, &w) in bin[..totals.len()].iter().enumerate() {
                        scan.add(label, w);
                    }
                }
            }
        } else {
            self.keys.clear();
            self.keys.extend(
                self.rows[from..to]
                    .iter()
                    .map(|&row| (u64::from(column.ranks[row as usize]) << 32) | u64::from(row)),
            );
            self.keys.sort_unstable();
            let mut last = None;
            for &key in &self.keys {
                let (rank, row) = ((key >> 32) as u32, key as u32 as usize);
                if last != Some(rank) {
                    scan.next_value(rank);
                    last = Some(rank);
                }
                scan.rows += 1;
                scan.add(self.data.label(row), self.weights[row]);
            }
        }
        scan.varies
    }

    /// Moves rows of the left side to the front; the end of the left side.
    fn partition(&mut self, from: usize, to: usize, split: &Split) -> usize {
        let ranks = &self.columns[split.feature].ranks;
        let rows = &mut self.rows[from..to];
        let mut left = 0;
        for i in 0..rows.len() {
            if ranks[rows[i] as usize] <= split.low {
                rows.swap(left, i);
                left += 1;
            }
        }
        from + left
    }
}

/// One pass over a feature's values in ascending order.
struct Scan<'b> {
    feature: usize,
    min_leaf: usize,
    all_rows: usize,
    totals: &'b [u64],
    left: Vec<u64>,
    left_weight: u64,
    all_weight: u64,
    /// Sums of squares of the label weights on either side, kept up to date.
    left_squares: u64,
    right_squares: u64,
    /// Rows at or below the current value.
    rows: usize,
    last: Option<u32>,
    varies: bool,
    best: &'b mut Option<Split>,
}

impl<'b> Scan<'b> {
    fn new(
        feature: usize,
        totals: &'b [u64],
        all_rows: usize,
        min_leaf: usize,
        best: &'b mut Option<Split>,
    ) -> Self {
        Self {
            feature,
            min_leaf,
            all_rows,
            totals,
            left: vec![0; totals.len()],
            left_weight: 0,
            all_weight: totals.iter().sum(),
            left_squares: 0,
            right_squares: totals.iter().map(|w| w * w).sum(),
            rows: 0,
            last: None,
            varies: false,
            best,
        }
    }

    #[inline]
    fn add(&mut self, label: usize, weight: u32) {
        let w = u64::from(weight);
        let (left, right) = (self.left[label], self.totals[label] - self.left[label]);
        // (l + w)^2 and (r - w)^2 from the squares of l and r.
        self.left_squares += w * (2 * left + w);
        self.right_squares -= w * (2 * right - w);
        self.left[label] += w;
        self.left_weight += w;
    }

    /// Called before the rows of the next value: scores the split between the last and this one.
    #[inline]
    fn next_value(&mut self, rank: u32) {
        let Some(low) = self.last.replace(rank) else {
            return;
        };
        self.varies = true;
        if self.rows < self.min_leaf || self.all_rows - self.rows < self.min_leaf {
            return;
        }
        let right_weight = self.all_weight - self.left_weight;
        let score = self.left_squares as f64 / self.left_weight as f64
            + self.right_squares as f64 / right_weight as f64;
        if self.best.as_ref().is_none_or(|b| score > b.score) {
            *self.best = Some(Split { score, feature: self.feature, low, high: rank });
        }
    }
}
