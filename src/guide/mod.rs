//! The guide: what the crate does, how to use it, and what to do when it fails.
//!
//! Read the pages in this order, or jump to the one you need. An engineer who starts needs the
//! first four; one who decides also needs [`comparison`]. An operator under pressure needs [`failures`], [`defaults`] and [`operating`].
//!
//! | page | answers |
//! |---|---|
//! | [`quick_start`] | How do I get a first hit? |
//! | [`tiers`] | Which tiers, which write policy, where does the CPU work run? |
//! | [`requests`] | How do I go from a source to an artifact? |
//! | [`keys`] | What is the key, and how do I key my own IR? |
//! | [`source_aliases`] | How does a known source skip its parse? |
//! | [`writes`] | Which tier gets a new artifact, and when? |
//! | [`many_machines`] | How do machines share artifacts? |
//! | [`at_scale`] | What does one server carry? |
//! | [`trust`] | Who may write what others read? |
//! | [`failures`] | What does the caller see, what is logged, what do I do? |
//! | [`tuning`] | Which setting changes what? |
//! | [`defaults`] | What is every default and bound? |
//! | [`operating`] | Folders, upgrades, backup, a full disk |
//! | [`compatibility`] | What lasts across releases? How does a fleet upgrade? |
//! | [`runtimes`] | Runtimes, threads, fork, shutdown |
//! | [`metrics`] | What do I watch? |
//! | [`recipes`] | A compile server and an editor, whole |
//! | [`from_the_synchronous_design`] | I know the cache of vyre-runtime. What differs? |
//! | [`faq`] | Short answers |
//! | [`comparison`] | When is another crate or tool the better choice? |

/// A page is a file of Markdown beside this one.
macro_rules! pages {
    ($($page:ident, $file:literal, $title:literal;)*) => {$(
        pub mod $page {
            #![doc = $title]
            #![doc = include_str!($file)]
        }
    )*};
}

pages! {
    quick_start, "quick_start.md", "Quick start: from an empty program to a first hit.\n\n";
    tiers, "tiers.md", "Choosing tiers: which tiers, which write policy, where CPU work runs.\n\n";
    requests, "requests.md", "The compile request: from a source to an artifact.\n\n";
    keys, "keys.md", "Keys, and a `Program` for your own IR.\n\n";
    source_aliases, "source_aliases.md", "Source aliases: a known source skips its parse.\n\n";
    writes, "writes.md", "Write policies: which tier gets a new artifact, and when.\n\n";
    many_machines, "many_machines.md", "Many machines: servers, leases, bundles, warm starts.\n\n";
    at_scale, "at_scale.md", "At scale: what one server carries, from a model.\n\n";
    trust, "trust.md", "Trust: shared secrets and signatures.\n\n";
    failures, "failures.md", "What happens when things fail.\n\n";
    tuning, "tuning.md", "Tuning: which setting changes what.\n\n";
    defaults, "defaults.md", "Every default and every bound.\n\n";
    operating, "operating.md", "Operating: folders, upgrades, backup, a full disk.\n\n";
    compatibility, "compatibility.md", "Compatibility: what lasts across releases, and what a change means.\n\n";
    runtimes, "runtimes.md", "Runtimes, threads, fork and shutdown.\n\n";
    metrics, "metrics.md", "Metrics, logs and traces.\n\n";
    recipes, "recipes.md", "Recipes: a compile server and an editor.\n\n";
    from_the_synchronous_design, "from_the_synchronous_design.md", "Coming from the synchronous design.\n\n";
    faq, "faq.md", "Questions and short answers.\n\n";
    comparison, "comparison.md", "Comparison: when to use another crate or tool.\n\n";
}
