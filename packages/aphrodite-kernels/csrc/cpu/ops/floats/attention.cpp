// Causal attention over the paged cache, for any mix of prefill and decode.
//
// Queries of a request are cut into tiles that share a KV head; a tile visits its chunks of keys in
// order. Where there are few tiles and many chunks, as in decode, a tile is cut into segments that
// different threads compute; their partials are kept and then merged in the same order.

#include "runtime.h"

#include "attention_tile.h"

struct aph_attention_args {
  int64_t rows;
  aph_runtime* runtime;
  int64_t requests;
  const float* q;                // [rows, heads, size]
  const void* key;               // [blocks, block_size, kv_heads, size]
  const void* value;             // the same
  const int32_t* block_tables;   // [requests, table_stride]
  const int32_t* seq_lens;       // [requests]
  const int32_t* query_starts;   // [requests + 1]
  float* result;                 // [rows, heads, size], contiguous
  int64_t table_stride, block_size, heads, kv_heads, size;
  int64_t q_row_stride, q_head_stride;
  int64_t block_stride, slot_stride, head_stride;  // of key and of value
  int64_t window;                                  // 0: none
  float scale, softcap;                            // softcap 0: none
  int32_t number;
  const float* sinks;        // [heads] or null
  const float* key_scale;    // [blocks, block_size, kv_heads] of a quantised cache, else null
  const float* value_scale;  // the same
  int64_t scale_block_stride, scale_slot_stride;
};

namespace aph::APH_LEVEL {

constexpr int64_t kRowsWanted = 48;  // enough to pay for packing a chunk's keys
constexpr int64_t kPieces = 8;       // segments per thread

struct Tile {
  int64_t request, kv_head;
  int64_t row;       // first query's row of the step
  int64_t position;  // and its position
  int64_t queries;
  int64_t first_chunk, chunks;
  int64_t segments;  // 1: no partial is kept
  float* partials;   // [chunks, rows * (padded + 2)]
};

struct Segment {
  int64_t tile, first_chunk, chunks;
};

struct Work {
  int64_t tiles = 0, segments = 0, chunks = 0, partials = 0;
};

struct Shape {
  int64_t group, queries, rows, padded;  // of a full tile
  explicit Shape(const aph_attention_args& args)
      : group(args.heads / args.kv_heads),
        queries(group < kRowsWanted ? kRowsWanted / group : 1),
        rows(queries * group),
        padded((args.size + kLanes - 1) / kLanes * kLanes) {}
  int64_t partial_floats(const Tile& tile) const { return tile.queries * group * (padded + 2); }
};

static int check(const aph_attention_args& args) {
  for (int64_t request = 0; request < args.requests; ++request) {
    const int64_t start = args.query_starts[request], stop = args.query_starts[request + 1];
    const int64_t keys = args.seq_lens[request];
    if (start < 0 || stop < start || stop > args.rows)
      return fail("request %lld has the rows %lld to %lld of %lld",
                  static_cast<long long>(request), static_cast<long long>(start),
                  static_cast<long long>(stop), static_cast<long long>(args.rows));
    if (start < stop && (keys < stop - start || keys > args.table_stride * args.block_size))
      return fail("request %lld has %lld keys for %lld queries and room for %lld in its table",
                  static_cast<long long>(request), static_cast<long long>(keys),
                  static_cast<long long>(stop - start),
                  static_cast<long long>(args.table_stride * args.block_size));
  }
  return 0;
}

// body(tile) for every tile, segments and partials not yet filled.
template <typename Body>
static void for_tiles(const aph_attention_args& args, const Shape& shape, const Body& body) {
  for (int64_t request = 0; request < args.requests; ++request) {
    const int64_t start = args.query_starts[request], stop = args.query_starts[request + 1];
    for (int64_t row = start; row < stop; row += shape.queries) {
      const int64_t queries = stop - row < shape.queries ? stop - row : shape.queries;
      const int64_t position = args.seq_lens[request] - (stop - row);
      const int64_t first = args.window && position >= args.window ? position - args.window + 1 : 0;
      const int64_t first_chunk = first / kChunk;
      const int64_t chunks = (position + queries - 1) / kChunk - first_chunk + 1;
      for (int64_t head = 0; head < args.kv_heads; ++head)
        body(Tile{request, head, row, position, queries, first_chunk, chunks, 1, nullptr});
    }
  }
}

// Chunks per segment, from the chunks of all tiles: enough segments to share out evenly.
static int64_t segment_length(const aph_attention_args& args, int64_t chunks) {
  const int64_t pieces = threads(args.runtime) * kPieces;
  return threads(args.runtime) == 1 ? chunks : 1 + chunks / pieces;
}

static int64_t segments_of(const Tile& tile, int64_t length) {
  return tile.chunks < 2 * length ? 1 : (tile.chunks + length - 1) / length;
}

static Partial partial_at(float* memory, int64_t rows) {
  return {memory, memory + rows, memory + 2 * rows};
}

// Worker memory, cut up.
struct Bench {
  TileMemory tile;
  Partial chunk, merged;
  int64_t* offsets;

  Bench(aph_runtime* runtime, int worker, const Shape& shape) {
    const int64_t rows = (shape.rows + kLanes - 1) / kLanes * kLanes;
    const int64_t values = rows * shape.padded, partial = values + 2 * rows;
    const int64_t floats =
        values + shape.padded * kChunk + rows * kChunk + 2 * partial + 2 * kChunk;
    float* at = static_cast<float*>(
        scratch(runtime, worker, floats * 4 + kChunk * 8 + rows * sizeof(Span)));
    const auto take = [&at](int64_t count) { return (at += count) - count; };
    tile.q = take(values);
    tile.keys = take(shape.padded * kChunk);
    tile.weights = take(rows * kChunk);
    tile.key_scales = take(kChunk);
    tile.value_scales = take(kChunk);
    // Values first, so that they are aligned.
    chunk.values = take(values);
    merged.values = take(values);
    chunk.largest = take(rows);
    chunk.sum = take(rows);
    merged.largest = take(rows);
    merged.sum = take(rows);
    offsets = reinterpret_cast<int64_t*>(at);
    tile.spans = reinterpret_cast<Span*>(offsets + kChunk);
  }
};

static void load_queries(const aph_attention_args& args, const Shape& shape, const Tile& tile,
                         float* q) {
  const Floats scale = all_floats(args.scale);
  for (int64_t query = 0; query < tile.queries; ++query)
    for (int64_t head = 0; head < shape.group; ++head, q += shape.padded) {
      const float* from = args.q + (tile.row + query) * args.q_row_stride +
                          (tile.kv_head * shape.group + head) * args.q_head_stride;
      for_lanes(args.size,
                [&](int64_t d, auto lanes) { store(q + d, lanes.get(from + d) * scale); });
    }
}

// The scales of the keys and values of a span; elsewhere 0, for which there are weights of 0.
static void locate_scales(const aph_attention_args& args, const Tile& tile, Span span,
                          int64_t base, const Bench& bench) {
  const int32_t* table = args.block_tables + tile.request * args.table_stride;
  for (int key = 0; key < kChunk; ++key) {
    const bool seen = key >= span.first && key < span.last;
    const int64_t position = base + key;
    const int64_t at = !seen ? 0
                             : table[position / args.block_size] * args.scale_block_stride +
                                   position % args.block_size * args.scale_slot_stride +
                                   tile.kv_head;
    bench.tile.key_scales[key] = seen ? args.key_scale[at] : 0.0f;
    bench.tile.value_scales[key] = seen ? args.value_scale[at] : 0.0f;
  }
}

// Which keys of the chunk each row sees, and where those of the hull lie.
static void locate(const aph_attention_args& args, const Shape& shape, const Tile& tile,
                   int64_t chunk, const Bench& bench) {
  const int64_t base = chunk * kChunk;
  for (int64_t query = 0; query < tile.queries; ++query) {
    const int64_t position = tile.position + query;
    const int64_t first = args.window ? position - args.window + 1 - base : 0;
    const int64_t last = position + 1 - base;
    const Span span{static_cast<int>(first < 0 ? 0 : first < kChunk ? first : kChunk),
                    static_cast<int>(last < 0 ? 0 : last < kChunk ? last : kChunk)};
    for (int64_t head = 0; head < shape.group; ++head)
      bench.tile.spans[query * shape.group + head] = span;
  }
  const Span all = hull(bench.tile.spans, static_cast<int>(tile.queries * shape.group));
  const int32_t* table = args.block_tables + tile.request * args.table_stride;
  for (int key = all.first; key < all.last; ++key) {
    const int64_t position = base + key;
    bench.offsets[key] = table[position / args.block_size] * args.block_stride +
                         position % args.block_size * args.slot_stride +
                         tile.kv_head * args.head_stride;
  }
  if (args.key_scale) locate_scales(args, tile, all, base, bench);
}

static void write_result(const aph_attention_args& args, const Shape& shape, const Tile& tile,
                         const Partial& merged) {
  for (int64_t query = 0; query < tile.queries; ++query)
    for (int64_t head = 0; head < shape.group; ++head) {
      const int64_t row = query * shape.group + head;
      if (args.sinks)
        sink(args.sinks[tile.kv_head * shape.group + head], merged, row, shape.padded);
      const Floats sum = all_floats(merged.sum[row]);
      const float* from = merged.values + row * shape.padded;
      float* to = args.result + ((tile.row + query) * args.heads + tile.kv_head * shape.group +
                                 head) * args.size;
      for_lanes(args.size, [&](int64_t d, auto lanes) { lanes.put(to + d, load(from + d) / sum); });
    }
}

template <typename Stored>
static void run_segment(const aph_attention_args& args, const Shape& shape, const Tile& tile,
                        const Segment& segment, const Bench& bench) {
  const int rows = static_cast<int>(tile.queries * shape.group);
  const bool split = tile.segments > 1;
  const Chunk chunk{bench.offsets, args.size, shape.padded, args.softcap};
  load_queries(args, shape, tile, bench.tile.q);
  if (!split) clear(bench.merged, rows, shape.padded);
  for (int64_t i = segment.first_chunk; i < segment.first_chunk + segment.chunks; ++i) {
    locate(args, shape, tile, i, bench);
    const int64_t kept = (i - tile.first_chunk) * shape.partial_floats(tile);
    const Partial partial = split ? partial_at(tile.partials + kept, rows) : bench.chunk;
    attend_chunk(chunk, static_cast<const Stored*>(args.key),
                 static_cast<const Stored*>(args.value), rows, bench.tile, partial);
    if (!split) merge(bench.merged, partial, rows, shape.padded);
  }
  if (!split) write_result(args, shape, tile, bench.merged);
}

static void merge_tile(const aph_attention_args& args, const Shape& shape, const Tile& tile,
                       const Bench& bench) {
  const int rows = static_cast<int>(tile.queries * shape.group);
  clear(bench.merged, rows, shape.padded);
  for (int64_t i = 0; i < tile.chunks; ++i)
    merge(bench.merged, partial_at(tile.partials + i * shape.partial_floats(tile), rows), rows,
          shape.padded);
  write_result(args, shape, tile, bench.merged);
}

// The step's tiles and segments, in the op's scratch memory.
struct Schedule {
  Work work;
  Tile* tiles;
  Segment* segments;

  Schedule(const aph_attention_args& args, const Shape& shape) {
    for_tiles(args, shape, [&](const Tile& tile) { work.chunks += tile.chunks; });
    const int64_t length = segment_length(args, work.chunks);
    for_tiles(args, shape, [&](const Tile& tile) {
      const int64_t segments = segments_of(tile, length);
      work.tiles += 1;
      work.segments += segments;
      if (segments > 1) work.partials += tile.chunks * shape.partial_floats(tile);
    });
    char* at = static_cast<char*>(
        scratch(args.runtime, -1, work.partials * sizeof(float) + work.tiles * sizeof(Tile) +
                                      work.segments * sizeof(Segment)));
    float* partials = reinterpret_cast<float*>(at);
    tiles = reinterpret_cast<Tile*>(at + work.partials * sizeof(float));
    segments = reinterpret_cast<Segment*>(tiles + work.tiles);
    fill(args, shape, length, partials);
  }

 private:
  void fill(const aph_attention_args& args, const Shape& shape, int64_t length, float* partials) {
    Tile* tile = tiles;
    Segment* segment = segments;
    for_tiles(args, shape, [&](const Tile& each) {
      *tile = each;
      tile->segments = segments_of(each, length);
      if (tile->segments > 1) {
        tile->partials = partials;
        partials += tile->chunks * shape.partial_floats(*tile);
      }
      const int64_t step = tile->segments > 1 ? length : tile->chunks;
      for (int64_t chunk = 0; chunk < tile->chunks; chunk += step)
        *segment++ = {tile - tiles, tile->first_chunk + chunk,
                      tile->chunks - chunk < step ? tile->chunks - chunk : step};
      ++tile;
    });
  }
};

template <typename Stored>
static int attend(const aph_attention_args& args) {
  const Shape shape(args);
  const Schedule schedule(args, shape);
  // A handful of chunks is done before another thread would have begun.
  const int64_t grain = schedule.work.chunks <= 3 ? schedule.work.segments : 1;
  parallel_for(args.runtime, schedule.work.segments, grain,
               [&](int64_t begin, int64_t end, int worker) {
    const Bench bench(args.runtime, worker, shape);
    for (int64_t i = begin; i < end; ++i)
      run_segment<Stored>(args, shape, schedule.tiles[schedule.segments[i].tile],
                          schedule.segments[i], bench);
  });
  if (schedule.work.partials == 0) return 0;
  const int64_t floats_per_tile = schedule.work.partials / schedule.work.tiles;
  parallel_for(args.runtime, schedule.work.tiles, 1 + 65536 / floats_per_tile,
               [&](int64_t begin, int64_t end, int worker) {
    const Bench bench(args.runtime, worker, shape);
    for (int64_t i = begin; i < end; ++i)
      if (schedule.tiles[i].segments > 1) merge_tile(args, shape, schedule.tiles[i], bench);
  });
  return 0;
}

// Rows that belong to no request.
static void clear_rest(const aph_attention_args& args) {
  const int64_t width = args.heads * args.size;
  const int64_t first = args.requests ? args.query_starts[args.requests] : 0;
  if (first < args.rows)
    std::memset(args.result + first * width, 0, (args.rows - first) * width * sizeof(float));
}

int attention(const aph_attention_args& args) {
  if (const int failed = check(args)) return failed;
  clear_rest(args);
  return with_cache_number(args.number,
                           [&](auto stored) { return attend<decltype(stored)>(args); });
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_attention, aph_attention_args, attention)
