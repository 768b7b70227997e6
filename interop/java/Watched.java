import java.nio.charset.StandardCharsets;
import java.util.concurrent.CountDownLatch;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.ZooKeeper;

/**
 * ZooKeeper's own client, which writes and reads all the time and prints every event of its connection and
 * every exception. Ends at the end of its input.
 *
 * Arguments: HOST:PORT PATH
 */
public final class Watched {
    public static void main(String[] arguments) throws Exception {
        CountDownLatch connected = new CountDownLatch(1);
        ZooKeeper client = new ZooKeeper(arguments[0], 10_000, (WatchedEvent event) -> {
            System.out.println("event " + event.getState());
            connected.countDown();
        });
        connected.await();
        String path = arguments[1];
        client.create(path, new byte[0], ZooDefs.Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        Thread reader = new Thread(() -> {
            try {
                while (System.in.read() >= 0) {}
            } catch (java.io.IOException end) {
                // The end, too.
            }
        });
        reader.setDaemon(true);
        reader.start();
        int version = 0;
        long longest = 0;
        while (reader.isAlive()) {
            byte[] data = Integer.toString(version).getBytes(StandardCharsets.UTF_8);
            long begin = System.nanoTime();
            try {
                client.setData(path, data, version++);
                client.getData(path, false, null);
            } catch (KeeperException error) {
                System.out.println("error " + error.code());
                break;
            }
            longest = Math.max(longest, System.nanoTime() - begin);
        }
        System.out.println("writes " + version + " longest_ms " + longest / 1_000_000);
        System.out.flush();
        client.close();
    }
}
