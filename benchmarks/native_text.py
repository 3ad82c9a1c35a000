"""The words of the page on the structured solver; its numbers come from `benchmarks.native`."""

HEAD = """# The structured solver

<!-- written by `python -m benchmarks.native --json FILE --page`; words: benchmarks/native_text.py -->

A feeder is a tree in space and a horizon a chain in time. General interior-point solvers find that out by ordering
one large sparse matrix; `native` knows it. What it takes, how it is chosen and what it declines:
[solvers](solvers.md). The code: `src/lateral/solvers/native/`, its text from `steps` (what repeats) to `session`
(again and again)."""

METHOD = """## The method in short

    minimise    f(x)
    subject to  A x = b,   G x - s = 0,   h(x) + w = 0  (w = 0 where exact),   C x = d,   bounds on x, s, w

within each step: `A`, `G` rows of the network and its devices; `h` what is not linear: products `sum a^2 - u v`
(currents, inverter discs), quadratic rows `sum f g + ...` (powers of ports, magnitudes), curves `y - phi(z)` (load
laws, inverter curves); `C` the storage rows, the only ones that link steps. A primal-dual interior point solves with
slacks and multipliers

    [ H + D     J'    C' ] [dx ]      H  exact Hessian of the Lagrangian, indefinite through u v and f g
    [ J      -D_s^-1     ] [dy ]      D, D_s  barrier terms z / (distance to the bound)
    [ C                  ] [eta]

once to predict (no barrier) and once to correct, with one factorisation (Mehrotra 1992); near the end it only corrects.
Second-order parts of the products and quadratic rows are exact. A slack that does not bind is set to what its row has
after every step, so that flat directions leave no residual behind. Where a step has another number of negative pivots
than rows, the diagonal is raised.

**Tree.** Without `C` the matrix falls apart into one per step, K. Node by node, from the leaves to the root, the
pairs

    (P, p_balance)   (Q, q_balance)   (l, current)   (v, drop)        devices and limits of the node before them

are pivots of 2 x 2, so that no diagonal is needed; what a node leaves behind is a 3 x 3 block on its parent's
voltage and two balances. Cost and memory are linear in buses times steps, and the inner loop runs over the steps.
Nodes come in postorder, the subtree with most storages last, so that what is changed next is near in memory.

**Lanes.** Eight steps are eliminated by one instruction, chunk of eight steps after chunk (`lanes`, `elimination`):
every pass over the factors reads memory in one stream, from the first lane to the last or back, and threads share the
chunks. Blocks of 0.3 MB of a chunk are assembled, eliminated, condensed and put away one after the other, in a room
that stays in the cache, and the first right-hand side is taken up while the chunk does.

**Single precision.** Factors above 16 MB come from memory, which is where threads wait for one another. On a tree they
are put away in single precision: made in double, each entry rounded once (6e-8), which is less than what conjugate
gradients leave. Newton steps are as many (128 x 24 to 10,000 x 96; 300 small random feeders, where it is forced), and
residuals are those of the program in double precision. Where the method does not come to an end so, it begins again
with factors in double precision.

**Any other network.** Three-phase nodes, meshes, ports: every equality is paired with a variable that it determines, by
the matching whose coefficients have the largest product (Duff and Koster 2001; Schenk and Gaertner 2006), variables
without bounds first, and the pairs are ordered by minimum degree. On a feeder that goes from the leaves to the root by
itself. Rows that a step does not have (a load near an edge of its band at some steps only) are there with a diagonal
of one, so that all steps keep one pattern.

**Chain.** What is left on the storage multipliers is `S = C K^-1 C'`, applied without being formed: by small maps
per stretch of line between storages and branching points that were condensed from the factors, up to the root and
back; on other networks by a solve along the pivots
between storages and root alone. Conjugate gradients solve it, with a
preconditioner that is exact in time: per storage a tridiagonal matrix whose entries are the blocks of K^-1 at its
own node (selected inversion; Takahashi et al. 1973 on other networks).
What links storages through the network is left to the iterations, which go as far as a step needs: 1e-3 to predict,
1e-6 to correct. Before them only the rows of storage ask for a solution, so that it is taken down along the pivots
above storage alone.

**Relaxations.** Cones of currents are tried as equalities first. Where no multiplier has the wrong sign, the point
satisfies the optimality conditions of the cones too, which are convex, and is their optimum (Farivar and Low 2013);
otherwise the cones are solved as they are.

**Start.** Devices well inside of their bounds (0.4 of the range), the network at its power flow, and then voltages just
inside of theirs. From devices near their bounds the first steps are short: that took a quarter to a third more
iterations on every feeder tried.

**Circles.** Where complementarity is reached and the residuals have not fallen for six steps (voltages at the corners
of load laws), steps are halved until they do.

**Where it fails** to make progress with factors in single precision, it begins anew with factors in double, and keeps
to these; where that fails too, Clarabel or Ipopt are asked, and the result says so. Where Ipopt has no word
either, the least violation nearby decides: above zero the program is locally infeasible; at zero it is solved again
from there.

**Stopping.** Violation below 1e-9 pu in the units of the program, gradient and complementarity below the tolerance
relative to the objective; what is left of the gradient twice that where residuals do not fall any more. The status
is earned from recomputed residuals like every solver's."""

READING = """Feeders `tree-NxT`: a trunk with random laterals, lowest voltage without control 0.953 pu, PV on 20 %
and batteries on 30 % of the load buses (33 % of the load, 4 h, terminal energy equal to initial, disc limits),
energy cost. All of lateral's solvers get the same scaled program; a solve is a session and its first solve, without
the building of the program. *Error* is the objective less that of `native` at a tolerance of 1e-10, relative.
Ipopt's default tolerance is 1e-8 (lateral asks for 1e-9); the others are at lateral's. On a shared machine read
ratios within one run."""

APART = """These are single runs, on a shared machine; the one at 2,500 x 96 by one and by two threads the median of
five, later than the others, whose code did the same steps. **Two threads** at 2,500 x 96: the medians in the file,
which are five runs each, say 1.7 (3.2 and 1.9 s). Pairs of runs, one after the other, each in a process of its own:
24 with nothing else started on the machine gave 1.07 to 1.82, **median 1.55** (2.85 and 1.88 s; medians of each dozen
1.55 and 1.55; 16 of 24 at 1.5 or more, none left out), so that the bar is **met in the median**. 30 earlier ones,
beside other work that was paused, gave medians of ten 1.52, 1.44 and 1.42: what neighbours take of the second core
counts in two threads alone. Before factors were kept in single precision it was 1.15 to
1.80, median 1.37 (3.2 and 2.3 s): two threads read memory no faster than one (25 to 43 GB/s either way), and half as
many bytes are read now. The rest is neighbours on the machine, and some 0.25 s of one thread alone (patterns, the
storage rows of the conjugate gradients). At 10,000 x 96 it is 1.7. The first call with an empty cache takes 12.8 to
13.3 s (bar: 15). Small programs have one thread, whatever is asked for (below 8e5 unknowns of all steps): what the
rows up to 2,500 x 24 show is noise. After 2 % of load 0.33 to 0.39 of the cold time, shifted 0.41 to 0.52, in eight
runs at 1,000 x 24. Of 300 random feeders 263 of 268 are solved without help, 31 of 31 infeasible ones said to be so,
none wrongly; of one more nobody proves it: `native` and Ipopt find no point (`python -m benchmarks.native_random`)."""
